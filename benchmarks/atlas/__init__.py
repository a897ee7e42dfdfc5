"""An atlas of trained networks: every block's spectrum, action, capacity and likeness, measured.

    python -m benchmarks.atlas              # measure what is not measured yet, then write the page
    python -m benchmarks.atlas --page-only  # write docs/atlas.md of what lies in build/atlas

The networks are those that `make real` gets (docs/real-networks.md). Each run of a network is kept
in a folder of its own, so that a second call goes on where the first one stopped.
"""
