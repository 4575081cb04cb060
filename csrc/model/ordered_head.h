// Reads the ordered head of a drafter from its file: the vocabulary in clusters of equal size, each
// with a centroid. A step scores the centroids and multiplies only the best clusters' rows of the
// head.
//
// Files store it as metadata (gemtp.ordered_head.*, written by our converter and skipped by other
// programs) or as tensors.
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

/// Reads the sizes from a drafter's file. Throws Error{kFile} if they do not fit the vocabulary.
OrderedHead read_ordered_head(const GgufFile& file, const std::string& arch, int64_t vocab);

/// The centroids: floats in the metadata, or the name of a tensor.
struct Centroids {
  std::vector<float> values;  // [centroids, hidden]; empty if they are a tensor
  std::string name;
};
Centroids read_centroids(const GgufFile& file, int64_t values);

/// Reads the token ids cluster by cluster, ascending in each: cluster c owns vocab / centroids
/// entries from c * vocab / centroids on. Throws Error{kFile} unless they are a permutation of the
/// vocabulary.
std::vector<int32_t> read_token_order(const GgufFile& file, int64_t vocab, int64_t centroids);

/// Names of the tensors of the ordered head; empty if it is stored as metadata, or the head is
/// plain.
std::vector<std::string> ordered_head_tensors(const GgufFile& file);

}  // namespace gemtp
