// One of several texts, in whatever tokens a model may spell it: where the next token may lead.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/tokenizer.h"

namespace gemtp {

class TextChoice {
 public:
  /// texts: of which none begins another, in valid UTF-8 (else Error{kArgument}). The token that
  /// brings a text's last byte may go on behind it. Keeps a reference to the tokenizer.
  TextChoice(const Tokenizer& tokenizer, const std::vector<std::string>& texts);

  /// Tokens that may come, each with the node that it leads to.
  using Edges = std::vector<std::pair<int32_t, size_t>>;
  static constexpr size_t kBegin = 0;
  const Edges& edges(size_t node) const { return nodes_[node].edges; }
  const Edges::value_type* find(size_t node, int32_t token) const;  // null: it may not come
  bool complete(size_t node) const { return nodes_[node].edges.empty(); }

  /// The tokens that a tokenizer makes of what is certain to follow, as far as what comes behind it
  /// does not matter.
  std::vector<int32_t> certain(size_t node) const;

 private:
  struct Node {
    std::string text;  // so far
    Edges edges;
  };

  void add(const std::string& text);
  size_t node(const std::string& text);
  void connect(const std::string& from, int32_t token, const std::string& to);

  const Tokenizer& tokenizer_;
  const std::vector<std::string> texts_;
  std::vector<Node> nodes_;
  std::unordered_map<std::string, size_t> by_text_;
};

}  // namespace gemtp
