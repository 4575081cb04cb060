// Declarations of tools in the form that Gemma's templates can write.
//
// Templates know a type that is one name, a description, nullable, the enum of strings, properties,
// required and items; what else stands in their place comes out as Python prints it, or breaks the
// rendering. JSON schemas say more:
//   $ref                     is replaced by what it names; where it leads back into itself, by the
//                            type alone
//   allOf                    is put together
//   anyOf, oneOf             without null, the only one that is left, or the enum of all that they
//                            name, or the first
//   ["string", "null"]       is the type "string" and nullable; of several types the first is kept
//   const                    is an enum of one
//   no type                  is that of the enum, or object or array where there are properties or
//                            items
//   null as a value          is left out, and in an enum makes it nullable
//   a response that is no object, and definitions that are referred to, are left out
// Whatever templates can write stays as it is.
#pragma once

#include "text/chat_value.h"

namespace gemtp {

/// tool: {"type": "function", "function": {...}}. Error{kArgument} where it is no declaration.
ChatValue writable_declaration(const ChatValue& tool);

}  // namespace gemtp
