// Byte-pair merging by rank: the adjacent pair of lowest rank is merged, the leftmost first among
// equals, until no pair can be merged. O(n log n) with a heap over (rank, position).
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

namespace gemtp {

/// Maps (left id, right id) to a rank, and the rank to the merged id.
class MergeTable {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  explicit MergeTable(size_t merges = 0) : products_(merges, -1) {
    size_t slots = 16;
    while (slots < 2 * merges) slots *= 2;
    slots_.resize(slots);
  }

  /// Returns false if the pair is already there.
  bool insert(int32_t left, int32_t right, uint32_t rank, int32_t product) {
    const uint64_t key = key_of(left, right);
    size_t at = slot_of(key);
    for (; slots_[at].rank != kNone; at = (at + 1) & (slots_.size() - 1)) {
      if (slots_[at].key == key) return false;
    }
    slots_[at] = {key, rank};
    products_[rank] = product;
    return true;
  }

  uint32_t rank(int32_t left, int32_t right) const {
    const uint64_t key = key_of(left, right);
    size_t at = slot_of(key);
    for (; slots_[at].rank != kNone; at = (at + 1) & (slots_.size() - 1)) {
      if (slots_[at].key == key) return slots_[at].rank;
    }
    return kNone;
  }

  int32_t product(uint32_t rank) const { return products_[rank]; }

 private:
  struct Slot {
    uint64_t key = 0;
    uint32_t rank = kNone;
  };

  static uint64_t key_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }

  size_t slot_of(uint64_t key) const {
    uint64_t h = key * 0x9E3779B97F4A7C15ull;
    h ^= h >> 32;
    h *= 0xD6E8FEB86659FD93ull;
    return static_cast<size_t>((h ^ h >> 32) & (slots_.size() - 1));
  }

  std::vector<Slot> slots_;
  std::vector<int32_t> products_;  // indexed by rank
};

/// Merges one segment at a time; keeps its memory between segments.
class BpeMerger {
 public:
  explicit BpeMerger(const MergeTable& table) : table_(table) {}

  void add(int32_t id) { symbols_.push_back({id, 0, 0, MergeTable::kNone}); }

  /// Merges the added symbols, appends the ids to `out` and resets for the next segment.
  void finish(std::vector<int32_t>* out) {
    const int32_t count = static_cast<int32_t>(symbols_.size());
    for (int32_t i = 0; i < count; ++i) {
      symbols_[at(i)].prev = i - 1;
      symbols_[at(i)].next = i + 1 < count ? i + 1 : -1;
      if (rank_pair(i)) first_.push_back(entry(i));
    }
    // The pairs of the original text are sorted once; only pairs created by merging need a heap.
    std::sort(first_.begin(), first_.end());
    for (size_t used = 0; used < first_.size() || !heap_.empty();) {
      uint64_t next;
      if (heap_.empty() || (used < first_.size() && first_[used] < heap_.front())) {
        next = first_[used++];
      } else {
        std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
        next = heap_.back();
        heap_.pop_back();
      }
      const uint32_t rank = static_cast<uint32_t>(next >> 32);
      const int32_t left = static_cast<int32_t>(next & UINT32_MAX);
      // If the pair has changed since it was queued, its rank differs.
      if (symbols_[at(left)].rank == rank) merge(left, table_.product(rank));
    }
    for (int32_t i = count > 0 ? 0 : -1; i >= 0; i = symbols_[at(i)].next) {
      out->push_back(symbols_[at(i)].id);
    }
    symbols_.clear();
    first_.clear();
  }

 private:
  struct Symbol {
    int32_t id;
    int32_t prev, next;  // indices of the neighbours still alive, -1 at the ends
    uint32_t rank;       // of the merge with `next`, kNone if there is none
  };

  static size_t at(int32_t index) { return static_cast<size_t>(index); }

  uint64_t entry(int32_t left) const {
    return static_cast<uint64_t>(symbols_[at(left)].rank) << 32 | static_cast<uint32_t>(left);
  }

  /// Looks up the merge of `left` with its right neighbour; returns false if there is none.
  bool rank_pair(int32_t left) {
    Symbol& symbol = symbols_[at(left)];
    symbol.rank =
        symbol.next < 0 ? MergeTable::kNone : table_.rank(symbol.id, symbols_[at(symbol.next)].id);
    return symbol.rank != MergeTable::kNone;
  }

  void queue_pair(int32_t left) {
    if (!rank_pair(left)) return;
    heap_.push_back(entry(left));
    std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
  }

  void merge(int32_t left, int32_t product) {
    Symbol& symbol = symbols_[at(left)];
    Symbol& right = symbols_[at(symbol.next)];
    right.rank = MergeTable::kNone;
    symbol.id = product;
    symbol.next = right.next;
    if (symbol.next >= 0) symbols_[at(symbol.next)].prev = left;
    queue_pair(left);
    if (symbol.prev >= 0) queue_pair(symbol.prev);
  }

  const MergeTable& table_;
  std::vector<Symbol> symbols_;
  // Pairs that can merge, as rank << 32 | index of the left symbol.
  std::vector<uint64_t> first_;  // sorted
  std::vector<uint64_t> heap_;   // smallest in front
};

}  // namespace gemtp
