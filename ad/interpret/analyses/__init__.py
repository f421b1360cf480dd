"""The analyses, one file each; the names are in `ad.registry.ANALYSES`."""
