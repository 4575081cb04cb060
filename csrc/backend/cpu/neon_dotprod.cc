// NEON with the dot products of ARMv8.2 (SDOT).
#include "backend/cpu/neon_dots.h"
#include "backend/cpu/vector_attention.h"

namespace {

template <int kOffset>
using Nibbles = ByRows<Sdot, NibbleQuants<kOffset>, false>;
template <int kOffset>
using Fives = ByRows<Sdot, FiveQuants<kOffset>, false>;
using Sixes = ByRows<Sdot, SixQuants, true>;
using Table = ByRows<Sdot, TableQuants, false>;
using GroupTable = ByRows<Sdot, TableQuants, true>;
using Bytes = ByRows<Sdot, SignedQuants, false>;

}  // namespace

#define GEMTP_TABLE gemtp_kernels_neon_dotprod
#define GEMTP_TABLE_NAME "neon_dotprod"
#include "backend/cpu/vector_table.h"
