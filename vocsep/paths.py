"""Where the flows keep their data, relative to the working directory."""

from pathlib import Path

DATA = Path("data")
CACHE = DATA / "cache"
DEMO = DATA / "demo"
STORE = DATA / "spectrograms.zarr"
ALL_BINS_STORE = DATA / "all-bins.zarr"
COMPARISON = DATA / "comparison"
RUNS = DATA / "runs"
MODELS = DATA / "models"
REPORTS = DATA / "reports"
SEPARATED = DATA / "separated"
JOBS = DATA / "retrain"
RECIPES = DATA / "recipe"
SERVE = DATA / "serve"
PREFECT = DATA / "prefect"
PICTURES = DATA / "pictures"
DOCTOR = DATA / "doctor"
PAGE = DATA / "page"
