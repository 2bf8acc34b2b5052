// SPDX-License-Identifier: Apache-2.0
// The walk over lattices of spins of the backend that this translation unit is compiled for.
#pragma once

#include "core/config.hpp"
#if defined(PF_CUDA)
#include "backend/cuda_spins.cuh"
#else
#include "backend/cpu_spins.hpp"
#endif
