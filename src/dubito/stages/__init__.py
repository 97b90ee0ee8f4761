"""Stages of a campaign: files in, files out; the only readers and writers of artefacts."""
