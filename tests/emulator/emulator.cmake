# The CUDA backend run by the host: the op files once more, against tests/emulator/emulator.hpp.
# Developers only; tests/emulator/build.py configures it.
set(PF_EMULATOR_FLAGS "" CACHE STRING "Further flags of the emulated backend, as of sanitizers")
add_library(pf_emulated OBJECT
  ${PF_OP_SOURCES} csrc/backend/device.cpp tests/emulator/emulator.cpp)
target_compile_definitions(pf_emulated PRIVATE PF_EMULATOR PF_BACKEND=emulated)
target_include_directories(pf_emulated PRIVATE csrc tests/emulator)
target_compile_options(pf_emulated PRIVATE
  -O1 -g1 -ffp-contract=off -fno-math-errno -fno-trapping-math -mfma ${PF_EMULATOR_FLAGS})
target_sources(_native PRIVATE $<TARGET_OBJECTS:pf_emulated>)
target_compile_definitions(_native PRIVATE PF_WITH_EMULATOR)
target_compile_options(_native PRIVATE -O1 -g1 ${PF_EMULATOR_FLAGS})
target_link_options(_native PRIVATE ${PF_EMULATOR_FLAGS})
