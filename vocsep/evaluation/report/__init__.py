"""What an evaluation leaves for people: tables, pictures, the page."""
