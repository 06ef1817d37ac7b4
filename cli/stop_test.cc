#include "cli/stop.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <future>

namespace postkeeper::cli {
namespace {

constexpr auto kPatience = std::chrono::seconds(20);

// Who waits for messages is stopped when the reader of what it prints goes away, and not before.
TEST(CliStop, TheReaderIsGone) {
  int fds[2];
  ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
  // On a thread of its own: the watcher blocks signals in the thread that makes it.
  std::thread([&] {
    StopRequest stop;
    std::promise<void> stopped;
    SignalWatcher watcher(
        stop, [] {}, fds[1]);
    stop.OnRequest([&] { stopped.set_value(); });
    EXPECT_FALSE(stop.is_requested());
    EXPECT_FALSE(watcher.has_lost_reader());
    close(fds[0]);
    EXPECT_EQ(stopped.get_future().wait_for(kPatience), std::future_status::ready);
    EXPECT_TRUE(watcher.has_lost_reader());
    stop.OnRequest(nullptr);
  }).join();
  close(fds[1]);
}

// A closed standard stream gets a body that cannot be used, so that nothing else gets its number.
TEST(CliStop, ClosedStandardStreams) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) close(fd);
    FillClosedStandardStreams(0, nullptr, nullptr);
    char byte = 0;
    const bool is_right = read(STDIN_FILENO, &byte, 1) == -1 && write(STDOUT_FILENO, &byte, 1) == -1 &&
                          write(STDERR_FILENO, &byte, 1) == 1 &&
                          open("/dev/null", O_RDONLY | O_CLOEXEC) > STDERR_FILENO;
    _exit(is_right ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace postkeeper::cli
