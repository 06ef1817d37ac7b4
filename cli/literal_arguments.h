// What stands behind "--" on a command line.
#ifndef POSTKEEPER_CLI_LITERAL_ARGUMENTS_H_
#define POSTKEEPER_CLI_LITERAL_ARGUMENTS_H_

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace postkeeper::cli {

// Arguments behind the first "--" are no flags and no commands, whatever they look like. CLI11 knows that only for
// positionals that are required, so they travel through it behind a mark that no argument begins with.
class LiteralArguments {
 public:
  LiteralArguments(int argc, const char* const* argv) {
    const auto is_taken = [&] {
      return std::any_of(argv, argv + argc, [&](std::string_view text) { return text.starts_with(mark_); });
    };
    while (is_taken()) mark_ += '=';
    bool is_literal = false;
    for (int i = 1; i < argc; ++i) {
      if (!is_literal && std::string_view(argv[i]) == "--") {
        is_literal = true;
      } else {
        arguments_.push_back(is_literal ? mark_ + argv[i] : argv[i]);
      }
    }
  }

  // As CLI11 wants them: without the program, the last one first.
  std::vector<std::string> Reversed() const { return {arguments_.rbegin(), arguments_.rend()}; }
  // Makes of what CLI11 gave back what was typed.
  void Unmark(std::string& text) const {
    if (text.starts_with(mark_)) text.erase(0, mark_.size());
  }

 private:
  std::string mark_ = "=";
  std::vector<std::string> arguments_;
};

}  // namespace postkeeper::cli

#endif  // POSTKEEPER_CLI_LITERAL_ARGUMENTS_H_
