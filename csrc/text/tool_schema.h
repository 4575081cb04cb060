// Converts tool declarations to the form that Gemma's templates can render.
//
// Templates support a type with a single name, a description, nullable, an enum of strings,
// properties, required and items. Anything else in their place is printed as Python prints it, or
// breaks the rendering. JSON schemas are richer, so their keywords are converted:
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
// Everything that templates can render stays unchanged.
#pragma once

#include "text/chat_value.h"

namespace gemtp {

/// tool: {"type": "function", "function": {...}}. Throws Error{kArgument} if it is not a
/// declaration.
ChatValue writable_declaration(const ChatValue& tool);

}  // namespace gemtp
