// SPDX-License-Identifier: Apache-2.0
// The walks over whole states of the backend that this translation unit is compiled for.
#pragma once

#include "core/config.hpp"
#if defined(PF_CUDA)
#include "backend/cuda_pooled.cuh"
#else
#include "backend/cpu_pooled.hpp"
#endif
