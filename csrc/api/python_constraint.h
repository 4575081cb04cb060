// The part of the Python binding that is about constraints.
#pragma once

#include <pybind11/pybind11.h>

namespace gemtp {

void bind_constraint(pybind11::module_& m);

}  // namespace gemtp
