# The GPU kernels for CUDA, compiled by nvcc, as data in the library. Everything else that CUDA needs
# is built without any SDK.
set(GEMTP_CUDA AUTO CACHE STRING "Kernels for CUDA: ON, OFF, or AUTO: if nvcc is found")
set(GEMTP_CUDA_KERNELS "" CACHE PATH "A folder that tools/cuda_kernels.py has filled: no nvcc is needed")

set(cuda_source csrc/backend/gpu/cuda/no_kernels.cc)
if(GEMTP_CUDA_KERNELS)
  set(cuda_source ${GEMTP_CUDA_KERNELS}/kernels.cc)
elseif(GEMTP_CUDA)
  find_package(Python COMPONENTS Interpreter)
  if(Python_FOUND)
    execute_process(COMMAND ${Python_EXECUTABLE} ${PROJECT_SOURCE_DIR}/tools/cuda_kernels.py --find-tools
                    RESULT_VARIABLE missing OUTPUT_VARIABLE said ERROR_VARIABLE said)
  endif()
  if(Python_FOUND AND NOT missing)
    set(cuda_kernels ${PROJECT_BINARY_DIR}/cuda)
    set(cuda_source ${cuda_kernels}/kernels.cc)
    file(GLOB cuda_sources csrc/backend/gpu/kernels/*.h csrc/backend/gpu/cuda/*.h
         csrc/backend/gpu/cuda/kernels.cu tools/cuda_kernels.py)
    add_custom_command(
      OUTPUT ${cuda_source}
      COMMAND ${Python_EXECUTABLE} ${PROJECT_SOURCE_DIR}/tools/cuda_kernels.py --out ${cuda_kernels}
      DEPENDS ${cuda_sources} COMMENT "Compiling the kernels for CUDA" VERBATIM)
  elseif(GEMTP_CUDA STREQUAL "AUTO")
    message(STATUS "Without kernels for CUDA: there is no Python, or: ${said}")
  else()
    message(FATAL_ERROR "GEMTP_CUDA is ${GEMTP_CUDA}, but there is no Python, or: ${said}")
  endif()
endif()
target_sources(gemtp_core PRIVATE ${cuda_source})
