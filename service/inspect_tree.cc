#include "service/inspect_tree.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_format.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

bool IsControl(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }

void AppendJsonText(std::string_view text, std::string& out) {
  out.push_back('"');
  while (!text.empty()) {
    const auto control = std::find_if(text.begin(), text.end(), IsControl);
    const auto length = static_cast<std::size_t>(control - text.begin());
    // Bytes that are not UTF-8 become readable here.
    for (const char c : Printable(text.substr(0, length), std::numeric_limits<std::size_t>::max())) {
      if (c == '"' || c == '\\') out.push_back('\\');
      out.push_back(c);
    }
    text.remove_prefix(length);
    if (text.empty()) break;
    out += absl::StrFormat("\\u%04x", static_cast<unsigned char>(text.front()));
    text.remove_prefix(1);
  }
  out.push_back('"');
}

}  // namespace

std::string InspectTree::PlainText() const {
  if (const auto* text = std::get_if<std::string>(&value_)) {
    return Printable(*text, std::numeric_limits<std::size_t>::max());
  }
  if (const auto* truth = std::get_if<bool>(&value_)) return *truth ? "yes" : "no";
  return Cat(std::get<std::int64_t>(value_));
}

std::string InspectTree::ToJson() const {
  std::string out;
  AppendJson(out);
  return out;
}

void InspectTree::AppendJson(std::string& out) const {
  if (const auto* text = std::get_if<std::string>(&value_)) return AppendJsonText(*text, out);
  if (const auto* truth = std::get_if<bool>(&value_)) {
    out += *truth ? "true" : "false";
  } else if (const auto* number = std::get_if<std::int64_t>(&value_)) {
    out += Cat(*number);
  } else if (const auto* fields = std::get_if<Fields>(&value_)) {
    out.push_back('{');
    for (const auto& [name, value] : *fields) {
      if (out.back() != '{') out.push_back(',');
      AppendJsonText(name, out);
      out.push_back(':');
      value.AppendJson(out);
    }
    out.push_back('}');
  } else {
    out.push_back('[');
    for (const InspectTree& item : std::get<Items>(value_)) {
      if (out.back() != '[') out.push_back(',');
      item.AppendJson(out);
    }
    out.push_back(']');
  }
}

std::string InspectTree::ToText() const {
  std::string out;
  AppendText(0, out);
  return out;
}

void InspectTree::AppendText(int depth, std::string& out) const {
  const std::string indent(static_cast<std::size_t>(2 * depth), ' ');
  if (IsPlain()) {
    out += Cat(indent, PlainText(), "\n");
    return;
  }
  if (const auto* items = std::get_if<Items>(&value_)) {
    for (std::size_t i = 0; i < items->size(); ++i) {
      const InspectTree& item = (*items)[i];
      if (item.IsPlain()) {
        item.AppendText(depth, out);
      } else {
        out += Cat(indent, "[", i, "]\n");
        item.AppendText(depth + 1, out);
      }
    }
    return;
  }
  const Fields& fields = std::get<Fields>(value_);
  std::size_t width = 0;
  for (const auto& [name, value] : fields) {
    if (value.IsPlain()) width = std::max(width, name.size());
  }
  for (const auto& [name, value] : fields) {
    if (value.IsPlain()) {
      out += Cat(indent, name, std::string(width - name.size() + 2, ' '), value.PlainText(), "\n");
    } else {
      out += Cat(indent, name, "\n");
      value.AppendText(depth + 1, out);
    }
  }
}

}  // namespace postkeeper
