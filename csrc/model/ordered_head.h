// The ordered head of a drafter in its file: the vocabulary in clusters of equal size, each with a
// centroid. A step scores the centroids and multiplies only the best clusters' rows of the head.
//
// Files have it as metadata (gemtp.ordered_head.*: what our converter writes, and other programs
// skip) or as tensors.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "gguf/reader.h"

namespace gemtp {

struct OrderedHead {
  int64_t centroids = 0;  // 0: the head is plain
  int64_t top_k = 0;      // clusters that a step multiplies
};

/// What a drafter's file says of it. Error{kFile} for sizes that do not fit the vocabulary.
OrderedHead read_ordered_head(const GgufFile& file, const std::string& arch, int64_t vocab);

/// Its centroids: floats in the metadata, of which there must be `values` (Error{kFile}), or the
/// name of a tensor.
struct Centroids {
  std::vector<float> values;  // [centroids, hidden]; empty: they are a tensor
  std::string name;
};
Centroids read_centroids(const GgufFile& file, int64_t values);

/// Token ids cluster by cluster, ascending in each: cluster c owns the entries from c * vocab /
/// centroids on.
/// Error{kFile} for what is not a permutation of the vocabulary.
std::vector<int32_t> read_token_order(const GgufFile& file, int64_t vocab, int64_t centroids);

/// Names of the tensors that the head consists of; none where it is metadata, or plain.
std::vector<std::string> ordered_head_tensors(const GgufFile& file);

}  // namespace gemtp
