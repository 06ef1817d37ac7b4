// What `postkeeperd inspect` has found, as a tree of named values, and its two forms: for people and for programs.
#ifndef POSTKEEPER_SERVICE_INSPECT_TREE_H_
#define POSTKEEPER_SERVICE_INSPECT_TREE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace postkeeper {

// A value: a text, a number, true or false, an object (fields in the order added) or a list. A plain data structure.
class InspectTree {
 public:
  using Fields = std::vector<std::pair<std::string, InspectTree>>;
  using Items = std::vector<InspectTree>;

  InspectTree() : value_(Fields()) {}  // an object without fields
  InspectTree(std::string text) : value_(std::move(text)) {}
  InspectTree(std::string_view text) : value_(std::string(text)) {}
  InspectTree(const char* text) : value_(std::string(text)) {}
  InspectTree(bool truth) : value_(truth) {}
  InspectTree(std::int64_t number) : value_(number) {}
  InspectTree(Items items) : value_(std::move(items)) {}

  // Of an object.
  void Add(std::string name, InspectTree value) {
    std::get<Fields>(value_).emplace_back(std::move(name), std::move(value));
  }

  // One object of JSON in one line.
  std::string ToJson() const;
  // Lines of `name  value`, what is inside indented.
  std::string ToText() const;

 private:
  void AppendJson(std::string& out) const;
  void AppendText(int depth, std::string& out) const;
  bool IsPlain() const { return !std::holds_alternative<Fields>(value_) && !std::holds_alternative<Items>(value_); }
  std::string PlainText() const;

  std::variant<std::string, bool, std::int64_t, Fields, Items> value_;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_INSPECT_TREE_H_
