#include "cli/output.h"

#include <absl/strings/str_format.h>

#include <algorithm>
#include <cmath>

#include "cli/text.h"

namespace postkeeper::cli {
namespace {

// Columns count characters, not bytes; wide characters may still be off by one.
std::size_t Width(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](unsigned char byte) { return (byte & 0xC0) != 0x80; });
}

}  // namespace

JsonObject& JsonObject::AddRaw(std::string_view key, std::string_view value) {
  members_ += Cat(members_.empty() ? "" : ",", JsonQuote(key), ":", value);
  return *this;
}

JsonObject& JsonObject::Add(std::string_view key, std::string_view text) { return AddRaw(key, JsonQuote(text)); }

JsonObject& JsonObject::Add(std::string_view key, std::int64_t number) { return AddRaw(key, Cat(number)); }

JsonObject& JsonObject::Add(std::string_view key, double number) {
  return AddRaw(key, std::isfinite(number) ? absl::StrFormat("%.15g", number) : "null");
}

JsonObject& JsonObject::AddBool(std::string_view key, bool value) { return AddRaw(key, value ? "true" : "false"); }

JsonObject& JsonObject::Add(std::string_view key, const JsonObject& object) { return AddRaw(key, object.Text()); }

JsonObject& JsonObject::AddList(std::string_view key, const std::vector<std::string>& texts) {
  std::string list;
  for (const std::string& text : texts) list += Cat(list.empty() ? "" : ",", JsonQuote(text));
  return AddRaw(key, Cat("[", list, "]"));
}

JsonObject& JsonObject::AddBody(std::string_view body) {
  return IsValidUtf8(body) ? Add("body", body) : Add("body_base64", Base64(body));
}

void Output::Line(std::string_view text) { stream_ << text << '\n'; }

void Output::Json(const JsonObject& object) { Line(object.Text()); }

void Output::Body(std::string_view body) {
  if (is_terminal_) {
    stream_ << ForTerminal(body, true);
  } else {
    stream_ << body;
  }
  if (body.empty() || body.back() != '\n') stream_ << '\n';
}

void Output::Table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], Width(row[i]));
  }
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const bool is_last = i + 1 == row.size();
      line += Cat(row[i], is_last ? "" : std::string(widths[i] - Width(row[i]) + 2, ' '));
    }
    Line(line);
  }
}

void Output::Fields(const std::vector<std::pair<std::string, std::string>>& fields) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& [name, value] : fields) rows.push_back({name + ":", value});
  Table(rows);
}

bool Output::Flush() {
  stream_.flush();
  return stream_.good();
}

}  // namespace postkeeper::cli
