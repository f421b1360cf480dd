"""The process and the disk: files, locks, signals, devices, the console and the folder of a run."""
