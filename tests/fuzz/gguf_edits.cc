#include "gguf_edits.h"

#include <algorithm>
#include <cstring>
#include <random>

#include "gguf/reader.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t most);

namespace gemtp::fuzzing {
namespace {

constexpr auto kArray = static_cast<uint32_t>(ValueType::kArray);
constexpr size_t kArrayHead = 12;  // element type u32, count u64

template <class T>
void put(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put_text(std::string* out, const std::string& text) {
  put<uint64_t>(out, text.size());
  *out += text;
}

void pad(std::string* bytes) { bytes->resize((bytes->size() + 31) / 32 * 32); }

size_t scalar_size(uint32_t type) {
  static constexpr size_t kSizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return type < std::size(kSizes) ? kSizes[type] : 0;
}

template <class T>
T& any_of(std::vector<T>& items, Data& data) {
  return items[data.ConsumeIntegralInRange<size_t>(0, items.size() - 1)];
}

uint32_t any_type(Data& data) {
  return data.PickValueInArray<uint32_t>({0,  1,  2,  3,  6,  7,  8,  10, 11, 12, 13, 14, 16,
                                          17, 18, 19, 20, 21, 22, 23, 26, 27, 29, 30, 39, 40});
}

// Repeats or cuts the data to what shape and type ask for, unless that is absurd.
void fit(GgufParts::Entry* entry) {
  constexpr uint64_t kMost = 1 << 20;  // elements
  const DTypeInfo* info = dtype_info(entry->type);
  if (!info || info->block == 0) return;
  uint64_t elements = 1;
  for (const uint64_t n : entry->shape) {
    if (n > kMost || (elements *= n) > kMost) return;
  }
  const uint64_t size =
      elements / static_cast<uint64_t>(info->block) * static_cast<uint64_t>(info->bytes);
  std::string pattern = entry->data.empty() ? "\x01" : entry->data;
  entry->data.clear();
  while (entry->data.size() < size)
    entry->data += pattern.substr(0, std::min<size_t>(pattern.size(), size - entry->data.size()));
}

void change_value(GgufParts* parts, Data& data) {
  GgufParts::Key& key = any_of(parts->keys, data);
  const size_t size = scalar_size(key.type);
  if (size == 0) {  // a string or an array: one byte of its beginning, most often not of its head
    const size_t begin = key.type == kArray && data.ConsumeIntegralInRange(0, 7) ? kArrayHead : 0;
    if (key.value.size() <= begin) return;
    const size_t last = std::min<size_t>(key.value.size() - 1, begin + 4096);
    key.value[data.ConsumeIntegralInRange(begin, last)] = data.ConsumeIntegral<char>();
    return;
  }
  std::string value;
  if (key.type == static_cast<uint32_t>(ValueType::kFloat32)) {
    put(&value, any_float(data));
  } else if (key.type == static_cast<uint32_t>(ValueType::kFloat64)) {
    put(&value, any_double(data));
  } else {
    put<uint64_t>(&value, data.ConsumeBool() ? data.ConsumeIntegralInRange<uint64_t>(0, 300)
                                             : data.ConsumeIntegral<uint64_t>());
  }
  key.value = value.substr(0, size);
}

void change_length(GgufParts* parts, Data& data) {
  GgufParts::Key& key = any_of(parts->keys, data);
  if (key.type != kArray || key.value.size() < kArrayHead) return;
  uint32_t element;
  std::memcpy(&element, key.value.data(), sizeof element);
  const size_t size = scalar_size(element);
  if (size == 0) return;
  const auto count = data.ConsumeIntegralInRange<uint64_t>(0, 300);
  std::string pattern = key.value.substr(kArrayHead);
  if (pattern.empty()) pattern = "\x01";
  std::string value = key.value.substr(0, 4);
  put(&value, count);
  while (value.size() < kArrayHead + count * size) value += pattern;
  value.resize(kArrayHead + count * size);
  key.value = value;
}

void set_key(GgufParts* parts, Data& data) {
  const std::string name = data.PickValueInArray<const char*>(
      {"general.alignment", "gemma4.attention.sliding_window", "gemma4.attention.shared_kv_layers",
       "gemma4.attention.head_count", "gemma4.expert_count", "gemma4.expert_used_count",
       "gemma4.feed_forward_length", "gemma4.rope.dimension_count", "gemma4.rope.freq_base",
       "gemma4.final_logit_softcapping", "gemma4.context_length", "split.count", "split.no",
       "split.tensors.count", "gemtp.ordered_head.num_centroids", "gemtp.ordered_head.top_k",
       "tokenizer.ggml.bos_token_id", "tokenizer.ggml.suppress_tokens", "general.sampling.temp"});
  const auto type = data.PickValueInArray<uint32_t>({0, 4, 5, 6, 7, 10, 12});
  std::string value;
  put<uint64_t>(&value, data.ConsumeIntegralInRange<uint64_t>(0, 70000));
  value.resize(scalar_size(type));
  std::erase_if(parts->keys, [&](const GgufParts::Key& key) { return key.name == name; });
  parts->keys.push_back({name, type, value});
}

void change_shape(GgufParts* parts, Data& data) {
  GgufParts::Entry& entry = any_of(parts->tensors, data);
  switch (data.ConsumeIntegralInRange(0, 3)) {
    case 0:
      if (entry.shape.size() < 5) entry.shape.push_back(1);
      break;
    case 1:
      std::reverse(entry.shape.begin(), entry.shape.end());
      break;
    default:
      any_of(entry.shape, data) = data.ConsumeIntegralInRange<uint64_t>(0, 512);
  }
  fit(&entry);
}

void change_type(GgufParts* parts, Data& data) {
  const uint32_t type = any_type(data);
  if (data.ConsumeBool()) {
    GgufParts::Entry& entry = any_of(parts->tensors, data);
    entry.type = type;
    fit(&entry);
    return;
  }
  for (GgufParts::Entry& entry : parts->tensors) {
    if (entry.shape.size() < 2) continue;
    entry.type = type;
    fit(&entry);
  }
}

void change_data(GgufParts* parts, Data& data) {
  GgufParts::Entry& entry = any_of(parts->tensors, data);
  if (entry.data.empty()) return;
  const std::string bytes = data.ConsumeBytesAsString(data.ConsumeIntegralInRange<size_t>(1, 8));
  if (bytes.empty()) return;
  const bool everywhere = data.ConsumeBool();
  const size_t begin =
      everywhere ? 0 : data.ConsumeIntegralInRange<size_t>(0, entry.data.size() - 1);
  const size_t end = everywhere ? entry.data.size() : begin + bytes.size();
  for (size_t i = begin; i < std::min(end, entry.data.size()); ++i)
    entry.data[i] = bytes[(i - begin) % bytes.size()];
}

// Floats of a tensor in F32, such as norms and the frequency factors of RoPE.
void change_floats(GgufParts* parts, Data& data) {
  GgufParts::Entry& entry = any_of(parts->tensors, data);
  if (entry.type != 0 || entry.data.size() < sizeof(float)) return;
  const float value = any_float(data);
  const bool all = data.ConsumeBool();
  const size_t count = entry.data.size() / sizeof value;
  const size_t begin = all ? 0 : data.ConsumeIntegralInRange<size_t>(0, count - 1);
  for (size_t i = begin; i < (all ? count : begin + 1); ++i)
    std::memcpy(entry.data.data() + i * sizeof value, &value, sizeof value);
}

void drop_or_rename(GgufParts* parts, Data& data) {
  if (data.ConsumeBool()) {
    const auto at = data.ConsumeIntegralInRange<size_t>(0, parts->keys.size() - 1);
    parts->keys.erase(parts->keys.begin() + static_cast<ptrdiff_t>(at));
    return;
  }
  const auto at = data.ConsumeIntegralInRange<size_t>(0, parts->tensors.size() - 1);
  if (data.ConsumeBool()) {
    parts->tensors.erase(parts->tensors.begin() + static_cast<ptrdiff_t>(at));
  } else {
    parts->tensors[at].name = any_text(data, 70, {"blk.", "0", ".attn_v.weight", ".attn_k.weight"});
  }
}

}  // namespace

GgufParts GgufParts::of(const std::string& path) {
  const auto file = GgufFile::open(path);
  const std::string whole = file_bytes(path);
  GgufParts parts;
  for (const std::string& name : file->keys()) {
    const Value& value = *file->find(name);
    const auto type = static_cast<uint32_t>(value.type);
    // The head of an array lies before its elements, the length of a string is with it.
    const uint64_t head = type == kArray ? kArrayHead : 0;
    parts.keys.push_back({name, type, whole.substr(value.offset - head, value.bytes + head)});
  }
  for (const Tensor& tensor : file->tensors()) {
    parts.tensors.push_back({tensor.name,
                             {tensor.shape.begin(), tensor.shape.end()},
                             tensor.type,
                             whole.substr(tensor.offset, tensor.bytes)});
  }
  return parts;
}

std::string GgufParts::bytes() const {
  std::string out = "GGUF", data;
  put<uint32_t>(&out, 3);
  put<uint64_t>(&out, tensors.size());
  put<uint64_t>(&out, keys.size());
  for (const Key& key : keys) {
    put_text(&out, key.name);
    put(&out, key.type);
    out += key.value;
  }
  for (const Entry& entry : tensors) {
    put_text(&out, entry.name);
    put(&out, static_cast<uint32_t>(entry.shape.size()));
    for (const uint64_t n : entry.shape) put(&out, n);
    put(&out, entry.type);
    put<uint64_t>(&out, data.size());
    data += entry.data;
    pad(&data);
  }
  pad(&out);
  return out + data;
}

void edit(GgufParts* parts, Data& data) {
  static constexpr void (*kEdits[])(GgufParts*, Data&) = {change_value,  change_length, set_key,
                                                          change_shape,  change_type,   change_data,
                                                          change_floats, drop_or_rename};
  for (int n = data.ConsumeIntegralInRange(0, 6); n > 0; --n) {
    if (parts->keys.empty() || parts->tensors.empty()) return;
    kEdits[data.ConsumeIntegralInRange<size_t>(0, std::size(kEdits) - 1)](parts, data);
  }
}

size_t mutate_gguf(uint8_t* data, size_t size, size_t most, unsigned seed) {
  constexpr size_t kCounts = 24;  // magic, version and two counts
  constexpr size_t kHeader = 60000;
  std::minstd_rand random(seed);
  const auto below = [&](size_t n) { return static_cast<size_t>(random()) % n; };
  if (size < 2 * kCounts || below(8) == 0) return LLVMFuzzerMutate(data, size, most);
  const size_t at = kCounts + below(std::min(size, kHeader) - kCounts);
  const size_t left = size - at;
  switch (below(4)) {
    case 0: {  // a number that lengths and offsets dislike
      static constexpr uint64_t kNumbers[] = {0,          1,          2,          0x7FFFFFFF,
                                              0x80000000, 0xFFFFFFFF, 1ull << 40, 1ull << 61,
                                              1ull << 62, 1ull << 63, ~0ull,      ~0ull - 7};
      const uint64_t number = kNumbers[below(std::size(kNumbers))];
      std::memcpy(data + at, &number, std::min(left, sizeof number));
      return size;
    }
    case 1: {  // one tensor or key more or less than there are
      uint64_t count;
      uint8_t* place = data + 8 + 8 * below(2);
      std::memcpy(&count, place, sizeof count);
      count += below(2) ? 1 : ~0ull;
      std::memcpy(place, &count, sizeof count);
      return size;
    }
    case 2: {  // some bytes fewer
      const size_t cut = std::min(1 + below(64), left);
      std::memmove(data + at, data + at + cut, left - cut);
      return size - cut;
    }
    default: {
      const size_t window = std::min(1 + below(40), left);
      LLVMFuzzerMutate(data + at, window, window);
      return size;
    }
  }
}

}  // namespace gemtp::fuzzing
