# Metal's device, and the text of its kernels, which a Mac compiles when it needs them. It is built
# for other systems, too, so that its tests run there; Windows lacks dlopen().
if(NOT WIN32)
  set(metal csrc/backend/gpu/metal)
  set(metal_text ${PROJECT_BINARY_DIR}/metal/kernel_text.cc)
  file(GLOB metal_kernels csrc/backend/gpu/kernels/*.h ${metal}/gpu.h ${metal}/kernels.metal)
  add_custom_command(
    OUTPUT ${metal_text}
    COMMAND ${CMAKE_COMMAND} -DCSRC=${PROJECT_SOURCE_DIR}/csrc -DOUT=${PROJECT_BINARY_DIR}/metal
            -P ${PROJECT_SOURCE_DIR}/cmake/metal_source.cmake
    DEPENDS ${metal_kernels} cmake/metal_source.cmake VERBATIM)
  target_sources(gemtp_core PRIVATE ${metal}/kernel_source.cc ${metal}/metal_device.cc
                 ${metal}/pipelines.cc ${metal}/runtime.cc ${metal_text})
  target_compile_definitions(gemtp_core PUBLIC GEMTP_HAVE_METAL)
endif()
