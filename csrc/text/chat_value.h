// A JSON-like value for chats: arguments of tool calls, responses of tools, and declarations of
// tools.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace gemtp {

/// An integer beyond 64 bits, as its digits.
struct BigInteger {
  std::string digits;  // with a leading "-" if negative
  bool operator==(const BigInteger&) const = default;
};

class ChatValue {
 public:
  using Array = std::vector<ChatValue>;
  using Object = std::vector<std::pair<std::string, ChatValue>>;  // keys are unique, in any order

  ChatValue() = default;  // null
  explicit ChatValue(bool b) : data_(b) {}
  explicit ChatValue(int64_t i) : data_(i) {}
  explicit ChatValue(BigInteger i) : data_(std::move(i)) {}
  explicit ChatValue(double d) : data_(d) {}
  explicit ChatValue(std::string s) : data_(std::move(s)) {}
  explicit ChatValue(const char* s) : data_(std::string(s)) {}
  explicit ChatValue(Array a) : data_(std::move(a)) {}
  explicit ChatValue(Object o) : data_(std::move(o)) {}

  bool is_null() const { return std::holds_alternative<std::monostate>(data_); }
  // These return null unless the value is of that kind.
  const bool* boolean() const { return std::get_if<bool>(&data_); }
  const int64_t* integer() const { return std::get_if<int64_t>(&data_); }
  const BigInteger* big_integer() const { return std::get_if<BigInteger>(&data_); }
  const double* real() const { return std::get_if<double>(&data_); }
  const std::string* string() const { return std::get_if<std::string>(&data_); }
  const Array* array() const { return std::get_if<Array>(&data_); }
  const Object* object() const { return std::get_if<Object>(&data_); }

  /// Returns the member of an object; null if it does not exist or the value is not an object.
  const ChatValue* find(std::string_view key) const {
    if (const Object* members = object()) {
      for (const auto& [name, value] : *members)
        if (name == key) return &value;
    }
    return nullptr;
  }

  bool operator==(const ChatValue&) const = default;

 private:
  std::variant<std::monostate, bool, int64_t, BigInteger, double, std::string, Array, Object> data_;
};

}  // namespace gemtp
