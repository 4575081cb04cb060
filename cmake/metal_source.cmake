# Writes the kernels in the Metal Shading Language, which a Mac compiles when it needs them: as one
# text, OUT/kernels.metal, and as C++ data, OUT/kernel_text.cc.
#   cmake -DCSRC=csrc -DOUT=build/metal -P cmake/metal_source.cmake
cmake_minimum_required(VERSION 3.20)

# Sets `result` to the text of a file, with those that it includes where they are first included.
function(flatten file result)
  get_property(seen GLOBAL PROPERTY seen)
  if(file IN_LIST seen)
    set(${result} "" PARENT_SCOPE)
    return()
  endif()
  set_property(GLOBAL APPEND PROPERTY seen ${file})
  file(READ ${CSRC}/${file} rest)
  set(text "")
  while(rest MATCHES "#include \"([^\"]+)\"\n")
    set(line "${CMAKE_MATCH_0}")
    flatten(${CMAKE_MATCH_1} included)
    string(FIND "${rest}" "${line}" at)
    string(LENGTH "${line}" length)
    string(SUBSTRING "${rest}" 0 ${at} before)
    math(EXPR behind "${at} + ${length}")
    string(SUBSTRING "${rest}" ${behind} -1 rest)
    string(APPEND text "${before}${included}")
  endwhile()
  set(${result} "${text}${rest}" PARENT_SCOPE)
endfunction()

flatten(backend/gpu/metal/kernels.metal text)
string(REPLACE "#pragma once\n" "" text "${text}")
string(REGEX REPLACE "//[^\n]*" "" text "${text}")
string(REGEX REPLACE "\n[ \n]*\n" "\n" text "${text}")
file(WRITE ${OUT}/kernels.metal "${text}")
file(WRITE ${OUT}/kernel_text.cc "#include \"backend/gpu/metal/kernel_source.h\"\n
namespace gemtp::gpu::metal {\n
const char* const kKernelSource = R\"gemtp(${text})gemtp\";\n
}  // namespace gemtp::gpu::metal\n")
