// SPDX-License-Identifier: Apache-2.0
// The walks of the backend that this translation unit is compiled for.
#pragma once

#include "core/config.hpp"
#if defined(__CUDACC__)
#error "the CUDA walks are not written yet; build with PF_CUDA=OFF"
#else
#include "backend/cpu.hpp"
#endif
