#include "cli/input.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "cli/text.h"

namespace postkeeper::cli {
namespace {

constexpr std::size_t kReadBytes = 128 << 10;

absl::Status CannotRead(std::string_view name, int error) {
  return absl::UnavailableError(Cat("cannot read ", name, ": ", std::strerror(error)));
}

class Arguments : public BodySource {
 public:
  explicit Arguments(std::vector<std::string> bodies) : bodies_(std::move(bodies)) {}

  absl::StatusOr<bool> Next(std::string& body) override {
    if (next_ == bodies_.size()) return false;
    body = bodies_[next_++];
    return true;
  }
  bool HasNext() override { return true; }
  std::string Place() const override { return Cat("argument ", next_); }

 private:
  const std::vector<std::string> bodies_;
  std::size_t next_ = 0;
};

class Files : public BodySource {
 public:
  Files(const InputOptions& options, int stdin_fd) : options_(options), stdin_fd_(stdin_fd) {
    if (options_.files.empty()) options_.files.push_back("-");
  }
  ~Files() override { Close(); }

  absl::StatusOr<bool> Next(std::string& body) override {
    for (;;) {
      if (fd_ < 0) {
        if (next_file_ == options_.files.size()) return false;
        if (absl::Status opened = Open(options_.files[next_file_++]); !opened.ok()) return opened;
      }
      absl::StatusOr<bool> has_body = options_.takes_whole_files ? ReadAll(body) : reader_->Next(body);
      if (!has_body.ok()) return has_body.status();
      if (!*has_body || options_.takes_whole_files) Close();
      if (*has_body && !(options_.skips_empty_lines && body.empty())) return true;
    }
  }

  bool HasNext() override { return options_.takes_whole_files || fd_ < 0 || reader_->HasNext(); }

  std::string Place() const override {
    return options_.takes_whole_files || !reader_ ? name_ : Cat("line ", reader_->line_number(), " of ", name_);
  }

 private:
  absl::Status Open(const std::string& file) {
    name_ = file == "-" ? "standard input" : file;
    fd_ = file == "-" ? stdin_fd_ : open(file.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd_ < 0) return CannotRead(name_, errno);
    reader_ = std::make_unique<LineReader>(fd_, name_);
    return absl::OkStatus();
  }

  void Close() {
    if (fd_ >= 0 && fd_ != stdin_fd_) close(fd_);
    fd_ = -1;
  }

  absl::StatusOr<bool> ReadAll(std::string& body) {
    body.clear();
    for (;;) {
      const std::size_t size = body.size();
      if (size > kBodyBytesMax) return absl::InvalidArgumentError(Cat(name_, " is above 4 MiB"));
      body.resize(size + kReadBytes);
      const ssize_t count = read(fd_, body.data() + size, kReadBytes);
      body.resize(size + std::max<ssize_t>(count, 0));
      if (count == 0) return true;
      if (count < 0 && errno != EINTR) return CannotRead(name_, errno);
    }
  }

  InputOptions options_;
  const int stdin_fd_;
  std::size_t next_file_ = 0;
  int fd_ = -1;
  std::string name_;
  std::unique_ptr<LineReader> reader_;
};

}  // namespace

absl::StatusOr<bool> LineReader::Next(std::string& line) {
  for (;;) {
    const std::size_t feed = buffer_.find('\n', scanned_);
    const bool is_last = feed == std::string::npos && is_at_end_;
    if (is_last && begin_ == buffer_.size()) return false;
    if (feed != std::string::npos || is_last) {
      const std::size_t end = is_last ? buffer_.size() : feed;
      ++line_number_;
      line.assign(buffer_, begin_, end - begin_);
      begin_ = scanned_ = is_last ? end : end + 1;
      return true;
    }
    scanned_ = buffer_.size();
    if (buffer_.size() - begin_ > kBodyBytesMax) {
      return absl::InvalidArgumentError(
          Cat("line ", line_number_ + 1, " of ", name_, " is above 4 MiB. One message for the whole file: --whole"));
    }
    const absl::StatusOr<bool> filled = Fill();
    if (!filled.ok()) return filled.status();
  }
}

absl::StatusOr<bool> LineReader::Fill() {
  buffer_.erase(0, begin_);
  scanned_ -= begin_;
  begin_ = 0;
  const std::size_t size = buffer_.size();
  buffer_.resize(size + kReadBytes);
  ssize_t count = 0;
  do {
    count = read(fd_, buffer_.data() + size, kReadBytes);
  } while (count < 0 && errno == EINTR);
  const int error = errno;
  buffer_.resize(size + std::max<ssize_t>(count, 0));
  if (count < 0) return CannotRead(name_, error);
  is_at_end_ = count == 0;
  return !is_at_end_;
}

bool LineReader::HasNext() {
  for (;;) {
    if (is_at_end_ || buffer_.find('\n', scanned_) != std::string::npos) return true;
    scanned_ = buffer_.size();
    if (buffer_.size() - begin_ > kBodyBytesMax) return true;
    pollfd poll_fd = {fd_, POLLIN, 0};
    if (poll(&poll_fd, 1, 0) <= 0) return false;
    // An error is Next's to tell: it reads again.
    if (!Fill().ok()) return true;
  }
}

std::unique_ptr<BodySource> OpenInput(const InputOptions& options, int stdin_fd) {
  if (!options.bodies.empty()) return std::make_unique<Arguments>(options.bodies);
  return std::make_unique<Files>(options, stdin_fd);
}

}  // namespace postkeeper::cli
