# SPDX-License-Identifier: Apache-2.0
"""Tools that read, check and run the PTX of the CUDA backend on machines without a GPU."""
