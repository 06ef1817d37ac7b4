// Making texts for people, and the bridge to Abseil's.
#ifndef POSTKEEPER_ZKSTORE_TEXT_H_
#define POSTKEEPER_ZKSTORE_TEXT_H_

#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "zkstore/environment.h"

namespace postkeeper {

// Debian builds Abseil with a string_view of its own, which std::string_view does not convert to.
inline absl::string_view AbslView(std::string_view text) { return {text.data(), text.size()}; }
inline std::string_view StdView(absl::string_view text) { return {text.data(), text.size()}; }

namespace internal {
template <typename T>
const T& ForAbsl(const T& part) {
  return part;
}
inline absl::string_view ForAbsl(std::string_view part) { return AbslView(part); }
}  // namespace internal

// absl::StrCat that also takes std::string_view.
template <typename... Parts>
std::string Cat(const Parts&... parts) {
  return absl::StrCat(internal::ForAbsl(parts)...);
}

// `text` for an error text or a log line, at most `bytes_max` bytes long: cut between characters, with "..." where
// something is missing; control characters and bytes that are not UTF-8 become \x1f.
std::string Printable(std::string_view text, std::size_t bytes_max);
// The same between quotes; `bytes_max` without them.
std::string Quoted(std::string_view text, std::size_t bytes_max = 100);

// "30s", "1.5s", "12h", "30 days", "100ms".
std::string Readable(Duration duration);

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_TEXT_H_
