"""What each check of the doctor looks at, for people who have not met it before."""

MEANINGS = {
    "store": "Which songs were looked at.",
    "splits": "A song that is in training and validation makes validation scores worthless.",
    "finite": "Values that are no numbers (NaN, infinity) spoil a network for good.",
    "sum of stems": "The mixture must be the sum of its stems, else input and target do not belong together.",
    "sources": "Voices have little bass: where the vocals have most of it, stems are probably swapped.",
    "silence": "Where nobody sings, a network learns nothing but to be silent.",
    "levels": "In a loss of raw magnitudes, quiet songs hardly count compared with loud ones.",
    "domain": "Input, output and target must speak of the same thing: raw, compressed or normalized magnitudes.",
    "bins": "The network halves bins and frames several times; what does not fit is padded, which is work for nothing.",
    "input": "What the network sees after its own scaling: neither all alike nor mostly clipped.",
    "trivial answers": "What a single mask for everything scores: a training is worth something only below that.",
    "masks at the start": "Masks of the untrained network; from saturated ones it can hardly move.",
    "gradients": "Whether every layer learns: none without a gradient, and no units that are always silent.",
    "one batch": "A sound set-up can overfit one batch; one that cannot will not learn songs either.",
    "batch norm": "Whether masks are the same in training and in use, where batch norms take other statistics.",
    "learning rate": "What a short training at several learning rates leaves of the loss.",
    "train and use": "Whether the network gets the same from the store as when it separates a file.",
}
