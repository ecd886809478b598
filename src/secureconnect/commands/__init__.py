"""The commands of `secureconnect`, one file each; they read settings, call the house and print what it answered."""
