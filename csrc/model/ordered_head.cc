#include "model/ordered_head.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "model/tensor_names.h"

namespace gemtp {
namespace {

// The names of llama.cpp, then those of other converters.
const TensorNames kCentroids{"masked_embd_centroids.weight", "mtp.centroids.weight",
                             "mtp_centroids.weight"};
const TensorNames kOrdering{"masked_embd_ordering", "masked_embd_ordering.weight",
                            "mtp.token_ordering.weight", "mtp_token_ordering.weight"};
const std::string kPrefix = "gemtp.ordered_head.";

[[noreturn]] void fail(const GgufFile& file, const std::string& what) {
  throw Error(ErrorKind::kFile, file.quoted_path() + ": " + what);
}

bool is_metadata(const GgufFile& file) { return file.has(kPrefix + "num_centroids"); }

// llama.cpp has no key for the number of clusters to score. Some files store the number from the
// model's config under various names, and every published drafter uses 32.
int64_t top_k_of_tensors(const GgufFile& file, const std::string& arch, int64_t centroids) {
  int64_t top_k = std::min<int64_t>(32, centroids);
  for (const char* key : {".centroid_top_k", ".centroid_intermediate_top_k"})
    top_k = file.get_int(arch + key).value_or(top_k);
  return top_k;
}

std::vector<int64_t> order_of_tensor(const GgufFile& file, int64_t vocab) {
  const std::string& name = name_of(kOrdering, file);
  const Tensor* order = file.find_tensor(name);
  constexpr uint32_t kI32 = 26, kI64 = 27;
  if (!order || (order->type != kI32 && order->type != kI64) || order->elements() != vocab)
    fail(file, format("tensor %s must be I32 or I64 with one entry a token", name.c_str()));
  const std::vector<uint8_t> bytes = file.bytes_of(*order);
  std::vector<int64_t> out(static_cast<size_t>(vocab));
  for (size_t i = 0; i < out.size(); ++i) {
    int32_t narrow;
    if (order->type == kI64) {
      std::memcpy(&out[i], bytes.data() + i * 8, 8);
    } else {
      std::memcpy(&narrow, bytes.data() + i * 4, 4);
      out[i] = narrow;
    }
  }
  return out;
}

// In some files the ordering lists the cluster of each token instead of the tokens of each cluster;
// converts the former into the latter.
void clusters_to_order(std::vector<int64_t>& ordering, int64_t centroids) {
  const auto vocab = static_cast<int64_t>(ordering.size());
  std::vector<int64_t> place(static_cast<size_t>(centroids));  // of the next token of each cluster
  for (const int64_t cluster : ordering) {
    if (cluster < 0 || cluster >= centroids) return;
    ++place[static_cast<size_t>(cluster)];
  }
  const int64_t each = vocab / centroids;
  if (each == 1) return;  // both forms are permutations
  for (int64_t c = 0; c < centroids; ++c) {
    if (place[static_cast<size_t>(c)] != each) return;
    place[static_cast<size_t>(c)] = c * each;
  }
  std::vector<int64_t> order(ordering.size());
  for (int64_t token = 0; token < vocab; ++token)
    order[static_cast<size_t>(place[static_cast<size_t>(ordering[static_cast<size_t>(token)])]++)] =
        token;
  ordering = std::move(order);
}

bool is_permutation_of(const std::vector<int64_t>& order, int64_t n) {
  if (static_cast<int64_t>(order.size()) != n) return false;
  std::vector<bool> seen(order.size());
  for (int64_t id : order) {
    if (id < 0 || id >= n || seen[static_cast<size_t>(id)]) return false;
    seen[static_cast<size_t>(id)] = true;
  }
  return true;
}

}  // namespace

OrderedHead read_ordered_head(const GgufFile& file, const std::string& arch, int64_t vocab) {
  OrderedHead head;
  if (is_metadata(file)) {
    head.centroids = file.get_int(kPrefix + "num_centroids").value();
    head.top_k = file.get_int(kPrefix + "top_k").value_or(0);
  } else if (const Tensor* t = file.find_tensor(name_of(kCentroids, file))) {
    head.centroids = t->shape.size() > 1 ? t->shape[1] : 1;
    head.top_k = top_k_of_tensors(file, arch, head.centroids);
  } else {
    return head;
  }
  const auto n = [](int64_t v) { return static_cast<long long>(v); };
  if (head.centroids < 1 || head.centroids > vocab || vocab % head.centroids)
    fail(file, format("the ordered head's %lld centroids do not divide a vocabulary of %lld",
                      n(head.centroids), n(vocab)));
  if (head.top_k < 1 || head.top_k > head.centroids)
    fail(file, format("the ordered head's top_k is %lld, outside [1, %lld]", n(head.top_k),
                      n(head.centroids)));
  return head;
}

Centroids read_centroids(const GgufFile& file, int64_t values) {
  if (!is_metadata(file)) return {{}, name_of(kCentroids, file)};
  const std::string key = kPrefix + "centroids";
  Centroids out{file.get_floats(key).value_or(std::vector<float>{}), key};
  if (static_cast<int64_t>(out.values.size()) != values)
    fail(file, format("the ordered head has %zu centroid values, %lld are needed",
                      out.values.size(), static_cast<long long>(values)));
  return out;
}

std::vector<int32_t> read_token_order(const GgufFile& file, int64_t vocab, int64_t centroids) {
  std::vector<int64_t> order;
  if (is_metadata(file)) {
    order = file.get_ints(kPrefix + "token_order").value_or(order);
  } else {
    order = order_of_tensor(file, vocab);
    clusters_to_order(order, centroids);
  }
  if (!is_permutation_of(order, vocab))
    fail(file, "the ordered head's token_order is not a permutation of the vocabulary");
  for (auto cluster = order.begin(); cluster != order.end(); cluster += vocab / centroids)
    std::sort(cluster, cluster + vocab / centroids);
  return {order.begin(), order.end()};
}

std::vector<std::string> ordered_head_tensors(const GgufFile& file) {
  const std::string& centroids = name_of(kCentroids, file);
  if (is_metadata(file) || !file.find_tensor(centroids)) return {};
  return {centroids, name_of(kOrdering, file)};
}

}  // namespace gemtp
