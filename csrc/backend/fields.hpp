// SPDX-License-Identifier: Apache-2.0
// The walk over lattices of fields of the backend that this translation unit is compiled for.
#pragma once

#include "core/config.hpp"
#if defined(PF_CUDA)
#include "backend/cuda_fields.cuh"
#else
#include "backend/cpu_fields.hpp"
#endif
