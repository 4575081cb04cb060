#include "choose/text_choice.h"

#include <algorithm>

#include "base/error.h"

namespace gemtp {
namespace {

bool is_text(TokenType type) {
  return type == TokenType::kNormal || type == TokenType::kUserDefined;
}

// Converts a text to the spelling of vocabularies.
std::string spelled(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == ' ')
      out += "\u2581";
    else
      out += c;
  }
  return out;
}

}  // namespace

TextChoice::TextChoice(const Tokenizer& tokenizer, const std::vector<std::string>& texts)
    : tokenizer_(tokenizer), texts_(texts) {
  node("");
  for (const std::string& text : texts_) add(text);
  // Also connect tokens that begin with a text's last byte and continue beyond it.
  for (int32_t token = 0; token < tokenizer.vocab_size(); ++token) {
    const std::string& bytes = tokenizer.token_text(token);
    if (bytes.size() < 2 || !is_text(tokenizer.token_type(token))) continue;
    for (const std::string& text : texts_)
      if (bytes[0] == text.back()) connect(text.substr(0, text.size() - 1), token, text);
  }
}

// Adds the tokenizer's encoding of a text, which may contain byte tokens, and every other way to
// compose the text of tokens.
void TextChoice::add(const std::string& text) {
  GEMTP_ASSERT(!text.empty());
  size_t at = 0;
  for (const int32_t token : tokenizer_.encode(text, false, false)) {
    const size_t end = at + tokenizer_.token_bytes(token, false).size();
    connect(text.substr(0, at), token, text.substr(0, end));
    at = end;
  }
  for (at = 0; at < text.size(); ++at) {
    for (size_t end = at + 1; end <= text.size(); ++end) {
      const int32_t token = tokenizer_.find(spelled(text.substr(at, end - at)));
      if (token >= 0 && is_text(tokenizer_.token_type(token)))
        connect(text.substr(0, at), token, text.substr(0, end));
    }
  }
}

size_t TextChoice::node(const std::string& text) {
  const auto [found, is_new] = by_text_.try_emplace(text, nodes_.size());
  if (is_new) nodes_.push_back({text, {}});
  return found->second;
}

void TextChoice::connect(const std::string& from, int32_t token, const std::string& to) {
  const size_t source = node(from), target = node(to);
  if (!find(source, token)) nodes_[source].edges.emplace_back(token, target);
}

const TextChoice::Edges::value_type* TextChoice::find(size_t node, int32_t token) const {
  for (const auto& edge : nodes_[node].edges)
    if (edge.first == token) return &edge;
  return nullptr;
}

std::vector<int32_t> TextChoice::certain(size_t node) const {
  const std::string& so_far = nodes_[node].text;
  std::string common;
  int candidates = 0;
  for (const std::string& text : texts_) {
    if (!text.starts_with(so_far)) continue;
    if (candidates++ == 0) {
      common = text;
    } else {
      const auto end = std::mismatch(common.begin(), common.end(), text.begin(), text.end()).first;
      common.erase(end, common.end());
    }
  }
  if (common.size() <= so_far.size() ||
      find_invalid_utf8(common.substr(so_far.size())) != std::string::npos)
    return {};
  std::vector<int32_t> tokens = tokenizer_.encode(common.substr(so_far.size()), false, false);
  tokens.pop_back();  // it might merge with the text that follows
  return tokens;
}

}  // namespace gemtp
