# SPDX-License-Identifier: Apache-2.0
"""The CUDA kernels run by the host."""
