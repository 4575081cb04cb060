// The part of the Python binding that is about chats.
#pragma once

#include <pybind11/pybind11.h>

namespace gemtp {

void bind_chat(pybind11::module_& m);

}  // namespace gemtp
