// Where the bodies of new messages come from.
#ifndef POSTKEEPER_CLI_INPUT_H_
#define POSTKEEPER_CLI_INPUT_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace postkeeper::cli {

// A message above this cannot get through gRPC's own limit, whatever the service allows.
inline constexpr std::size_t kBodyBytesMax = 4 << 20;

// Lines of a file descriptor, which it does not own. Not thread-safe. Keeps at most one line, and one read, in memory.
class LineReader {
 public:
  // `name` is for error messages.
  LineReader(int fd, std::string name) : fd_(fd), name_(std::move(name)) {}

  // The next line without its line feed; a last line without one counts too. False at the end. Blocks. A line above
  // kBodyBytesMax is an error that names it.
  absl::StatusOr<bool> Next(std::string& line);
  // True if Next would not have to wait.
  bool HasNext();

  std::int64_t line_number() const { return line_number_; }

 private:
  // Reads once more. False at the end of the input.
  absl::StatusOr<bool> Fill();

  const int fd_;
  const std::string name_;
  std::string buffer_;
  std::size_t begin_ = 0;    // Of what is not handed out yet.
  std::size_t scanned_ = 0;  // Up to here there is no line feed.
  bool is_at_end_ = false;
  std::int64_t line_number_ = 0;
};

struct InputOptions {
  std::vector<std::string> bodies;  // From the command line; if there are any, nothing else is read.
  std::vector<std::string> files;   // "-" is standard input. None, and no bodies: standard input.
  bool takes_whole_files = false;   // One message per file instead of one per line.
  bool skips_empty_lines = false;
};

// The bodies of new messages, one after the other. Not thread-safe.
class BodySource {
 public:
  virtual ~BodySource() = default;
  // False at the end.
  virtual absl::StatusOr<bool> Next(std::string& body) = 0;
  // True if Next would not have to wait.
  virtual bool HasNext() = 0;
  // Where the last body came from, for error messages, e.g. "line 17 of words.txt".
  virtual std::string Place() const = 0;
};

std::unique_ptr<BodySource> OpenInput(const InputOptions& options, int stdin_fd);

}  // namespace postkeeper::cli

#endif  // POSTKEEPER_CLI_INPUT_H_
