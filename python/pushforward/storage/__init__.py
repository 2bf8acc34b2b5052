# SPDX-License-Identifier: Apache-2.0
"""Draws that go to disk while a run makes them, as a Zarr store that xarray and ArviZ open."""

from pushforward.storage.store import DrawStore, StoreFull

__all__ = ["DrawStore", "StoreFull"]
