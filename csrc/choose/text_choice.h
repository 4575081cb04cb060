// A choice between several texts, each in any tokens that spell it: a graph of the tokens that may
// come next.
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
  /// texts: none may be a prefix of another; must be valid UTF-8 (otherwise throws
  /// Error{kArgument}). The token with a text's last byte may continue beyond it. Keeps a reference
  /// to the tokenizer.
  TextChoice(const Tokenizer& tokenizer, const std::vector<std::string>& texts);

  /// Allowed tokens, each with the node to which it leads.
  using Edges = std::vector<std::pair<int32_t, size_t>>;
  static constexpr size_t kBegin = 0;
  const Edges& edges(size_t node) const { return nodes_[node].edges; }
  const Edges::value_type* find(size_t node, int32_t token) const;  // null: not allowed
  bool complete(size_t node) const { return nodes_[node].edges.empty(); }

  /// The tokenizer's encoding of the text that is certain to follow, without the last token, which
  /// may depend on the text after it.
  std::vector<int32_t> certain(size_t node) const;

 private:
  struct Node {
    std::string text;  // text so far
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
