// A constraint that a C program brings.
#pragma once

#include <cstdint>
#include <memory>

#include "choose/constraint.h"
#include "gemtp.h"

namespace gemtp {

/// Null for NULL. Error{kArgument} where one of the functions it cannot do without is NULL.
std::shared_ptr<Constraint> constraint_of(const gemtp_constraint* given, int64_t vocab);

}  // namespace gemtp
