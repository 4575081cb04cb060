// A constraint that a C program provides.
#pragma once

#include <cstdint>
#include <memory>

#include "choose/constraint.h"
#include "gemtp.h"

namespace gemtp {

/// Wraps a caller's constraint; returns null for NULL. Throws Error{kArgument} if a required
/// function is NULL.
std::shared_ptr<Constraint> constraint_of(const gemtp_constraint* given, int64_t vocab);

}  // namespace gemtp
