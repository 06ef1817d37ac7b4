#include "cli/child.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "cli/text.h"

extern char** environ;

namespace postkeeper::cli {
namespace {

// How often a command that neither reads all its input nor closes its output is asked whether it has ended.
constexpr int kPollMillis = 20;

class Fd {
 public:
  ~Fd() { Close(); }
  Fd() = default;
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;

  int get() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }
  void Set(int fd) { fd_ = fd; }
  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

 private:
  int fd_ = -1;
};

// Both ends vanish at exec; ours never blocks.
bool MakePipe(Fd& read_end, Fd& write_end) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return false;
  read_end.Set(fds[0]);
  write_end.Set(fds[1]);
  return true;
}

void MakeNonBlocking(const Fd& fd) { fcntl(fd.get(), F_SETFL, fcntl(fd.get(), F_GETFL) | O_NONBLOCK); }

std::vector<std::string> MakeEnvironment(const ChildCommand& command) {
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string_view text = *variable;
    const std::string_view name = text.substr(0, text.find('='));
    bool is_replaced = name.starts_with("POSTKEEPER_ATTRIBUTE_");
    for (const auto& [ours, value] : command.variables) is_replaced = is_replaced || name == ours;
    if (!is_replaced) variables.emplace_back(text);
  }
  for (const auto& [name, value] : command.variables) {
    // The system's variables end at a zero byte; a value cut short would be a lie, so it is left out.
    if (value.find('\0') == std::string::npos) variables.push_back(Cat(name, "=", value));
  }
  return variables;
}

}  // namespace

// One run: started, fed, waited for.
class ChildProcess {
 public:
  ChildProcess(const ChildCommand& command, ChildProcesses& children) : command_(command), children_(children) {}

  ChildResult Run() {
    ChildResult result;
    result.failure = Start();
    if (!result.failure.empty()) return result;
    Feed(result.output);
    result.failure = WaitForEnd();
    if (result.failure.empty() && is_output_too_large_) {
      result.failure = Cat("its output is above ", command_.output_bytes_max, " bytes");
    }
    return result;
  }

 private:
  // Answers why it could not be started; empty if it was.
  std::string Start() {
    Fd input_read;
    Fd output_write;
    if (!MakePipe(input_read, input_) || (command_.captures_output && !MakePipe(output_, output_write))) {
      return Cat("cannot make a pipe: ", std::strerror(errno));
    }
    MakeNonBlocking(input_);
    if (output_.is_open()) MakeNonBlocking(output_);

    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, input_read.get(), STDIN_FILENO);
    if (command_.captures_output) posix_spawn_file_actions_adddup2(&actions, output_write.get(), STDOUT_FILENO);

    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t none;
    sigemptyset(&none);
    sigset_t ours;
    sigemptyset(&ours);
    for (const int signal : {SIGPIPE, SIGINT, SIGTERM}) sigaddset(&ours, signal);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &ours);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);

    std::vector<std::string> variables = MakeEnvironment(command_);
    std::vector<char*> environment;
    for (std::string& variable : variables) environment.push_back(variable.data());
    environment.push_back(nullptr);
    std::string shell = "/bin/sh";
    std::string flag = "-c";
    std::string script = command_.command;
    char* arguments[] = {shell.data(), flag.data(), script.data(), nullptr};
    int error = 0;
    {
      const std::lock_guard lock(children_.mu_);
      error = posix_spawn(&pid_, shell.c_str(), &actions, &attributes, arguments, environment.data());
      if (error == 0) children_.running_.insert(pid_);
    }
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return error == 0 ? "" : Cat("cannot be started: ", std::strerror(error));
  }

  // Until the input is written or refused, and the output is read to its end, or the process is gone.
  void Feed(std::string& output) {
    std::string_view rest = command_.input;
    if (rest.empty()) input_.Close();
    bool has_ended = false;
    while (input_.is_open() || output_.is_open()) {
      pollfd fds[] = {{input_.get(), POLLOUT, 0}, {output_.get(), POLLIN, 0}};
      poll(fds, 2, kPollMillis);
      if (fds[0].revents != 0) Write(rest);
      if (fds[1].revents != 0) Read(output);
      if (has_ended) break;
      if (fds[0].revents == 0 && fds[1].revents == 0) has_ended = HasEnded();
    }
    input_.Close();
    output_.Close();
  }

  void Write(std::string_view& rest) {
    const ssize_t written = write(input_.get(), rest.data(), rest.size());
    if (written > 0) rest.remove_prefix(written);
    if (rest.empty() || (written < 0 && errno != EAGAIN && errno != EINTR)) input_.Close();
  }

  void Read(std::string& output) {
    char buffer[65536];
    const ssize_t count = read(output_.get(), buffer, sizeof buffer);
    if (count > 0 && output.size() + count <= command_.output_bytes_max) {
      output.append(buffer, count);
    } else if (count > 0) {
      is_output_too_large_ = true;
    } else if (count == 0 || (errno != EAGAIN && errno != EINTR)) {
      output_.Close();
    }
  }

  // Leaves it to be reaped.
  bool HasEnded() const {
    siginfo_t info{};
    return waitid(P_PID, pid_, &info, WEXITED | WNOWAIT | WNOHANG) == 0 && info.si_pid == pid_;
  }

  std::string WaitForEnd() {
    siginfo_t info{};
    while (waitid(P_PID, pid_, &info, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
    }
    int status = 0;
    {
      const std::lock_guard lock(children_.mu_);
      children_.running_.erase(pid_);
      while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
      }
    }
    if (WIFSIGNALED(status)) {
      return Cat("killed by signal ", WTERMSIG(status), " (", strsignal(WTERMSIG(status)), ")");
    }
    return WEXITSTATUS(status) == 0 ? "" : Cat("exit code ", WEXITSTATUS(status));
  }

  const ChildCommand& command_;
  ChildProcesses& children_;
  pid_t pid_ = -1;
  Fd input_;
  Fd output_;
  bool is_output_too_large_ = false;
};

void ChildProcesses::KillAll() {
  const std::lock_guard lock(mu_);
  for (const pid_t pid : running_) kill(-pid, SIGKILL);
}

ChildResult RunChild(const ChildCommand& command, ChildProcesses& children) {
  return ChildProcess(command, children).Run();
}

}  // namespace postkeeper::cli
