// SPDX-License-Identifier: Apache-2.0
// Cluster moves on the backend that this translation unit is compiled for.
#pragma once

#include "core/config.hpp"
#if defined(PF_CUDA)
#include "backend/cuda_clusters.cuh"
#else
#include "backend/cpu_clusters.hpp"
#endif
