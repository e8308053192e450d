"""Scenes fitted to one static orbit and moved by the asset's own rig; the slot for what reads rigs."""
