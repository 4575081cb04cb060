#include "backend/pass_rows.h"

#include "backend/backend.h"

namespace gemtp {

RopeAngles::RopeAngles(Storage& storage, int64_t rows, int64_t half_width)
    : half(half_width),
      cos(storage.mirror<float>(rows * half_width)),
      sin(storage.mirror<float>(rows * half_width)) {}

PassRows::PassRows(Storage& storage, int64_t rows, int64_t half_full, int64_t half_sliding)
    : runs(storage.mirror<RowRun>(rows)),
      sequence(storage.mirror<int32_t>(rows)),
      ids(storage.mirror<int32_t>(rows)),
      positions(storage.mirror<int32_t>(rows)),
      full{storage.mirror<AttentionSpan>(rows), {storage, rows, half_full}},
      sliding{storage.mirror<AttentionSpan>(rows), {storage, rows, half_sliding}} {}

}  // namespace gemtp
