#include "cli/child.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <thread>

#include "cli/input.h"
#include "cli/stop.h"

namespace postkeeper::cli {
namespace {

using ::testing::HasSubstr;

class CliChildTest : public ::testing::Test {
 protected:
  CliChildTest() { IgnoreBrokenPipes(); }

  ChildResult Run(const std::string& command, std::string_view input = "",
                  std::vector<std::pair<std::string, std::string>> variables = {}) {
    return RunChild({command, input, std::move(variables), true, 512 << 10}, children_);
  }

  ChildProcesses children_;
};

// The command reads exactly the body, a large one with all bytes too, and what it prints is captured.
TEST_F(CliChildTest, FeedsInputAndCapturesOutput) {
  std::string body;
  for (int i = 0; i < 512 << 10; ++i) body += static_cast<char>(i * 7);
  const ChildResult result = Run("cat", body);
  EXPECT_TRUE(result.is_success()) << result.failure;
  EXPECT_EQ(result.output, body);
  EXPECT_EQ(Run("wc -c").output, "0\n");
}

// How a command ended is said in words that make sense as a reason in the queue.
TEST_F(CliChildTest, SaysHowItEnded) {
  EXPECT_EQ(Run("exit 3").failure, "exit code 3");
  EXPECT_EQ(Run("kill -9 $$").failure, "killed by signal 9 (Killed)");
  EXPECT_EQ(Run("/nowhere/at/all 2>/dev/null").failure, "exit code 127");
}

// 512 KiB for a command that reads nothing: neither a block, nor SIGPIPE, nor a failure. Not even if it first closes
// its input and goes on for a while.
TEST_F(CliChildTest, OutlivesACommandThatDoesNotRead) {
  const std::string body(512 << 10, 'x');
  EXPECT_EQ(Run("echo done", body).output, "done\n");
  EXPECT_EQ(Run("exec <&-; sleep 0.05; echo done", body).output, "done\n");
  EXPECT_EQ(Run("exit 4", body).failure, "exit code 4");
  EXPECT_TRUE(RunChild({"true", body, {}, false, 0}, children_).is_success());
}

// What the command leaves in the background keeps stdout open but is not waited for.
TEST_F(CliChildTest, DoesNotWaitForTheBackground) {
  const ChildResult result = Run("sleep 60 & echo $!");
  EXPECT_TRUE(result.is_success());
  const int left_behind = std::atoi(result.output.c_str());
  ASSERT_GT(left_behind, 1);
  kill(left_behind, SIGKILL);
}

// An output above the maximum is a failure, not half an output.
TEST_F(CliChildTest, RefusesTooMuchOutput) {
  EXPECT_EQ(Run("head -c 600000 /dev/zero").failure, "its output is above 524288 bytes");
}

// Our variables replace those of an outer --exec; a value that no variable can hold is left out, not cut short.
TEST_F(CliChildTest, SetsVariables) {
  setenv("POSTKEEPER_ATTRIBUTE_OLD", "outer", 1);
  setenv("POSTKEEPER_SOURCE", "outer", 1);
  const ChildResult result = Run("echo \"$POSTKEEPER_SOURCE|$POSTKEEPER_ATTRIBUTE_OLD|$X|${Y-unset}\"", "",
                                 {{"POSTKEEPER_SOURCE", "inner"}, {"X", "a b\n$(c)"}, {"Y", std::string("a\0b", 3)}});
  unsetenv("POSTKEEPER_ATTRIBUTE_OLD");
  unsetenv("POSTKEEPER_SOURCE");
  EXPECT_EQ(result.output, "inner||a b\n$(c)|unset\n");
}

// The command can be stopped by signals that we ignore or block, and leads its own process group.
TEST_F(CliChildTest, StartsWithCleanSignalsInItsOwnGroup) {
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &blocked, nullptr);
  EXPECT_EQ(Run("kill -TERM $$; echo alive").failure, "killed by signal 15 (Terminated)");
  pthread_sigmask(SIG_UNBLOCK, &blocked, nullptr);
  EXPECT_EQ(Run("test $(ps -o pgid= -p $$) = $$ && echo leads").output, "leads\n");
}

// An exit at once takes the running commands along, with what they started.
TEST_F(CliChildTest, KillAllEndsWhatRuns) {
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  ChildResult result;
  const std::string command = "echo x >&" + std::to_string(ready[1]) + "; sleep 60; true";
  std::thread runner([&] { result = RunChild({command, "", {}, false, 0}, children_); });
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  children_.KillAll();
  runner.join();
  EXPECT_EQ(result.failure, "killed by signal 9 (Killed)");
  close(ready[0]);
  close(ready[1]);
}

// Lines come out as they went in: empty ones, a last one without an end, one longer than a read.
TEST(CliLineReaderTest, ReadsLines) {
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  const std::string long_line(60'000, 'y');
  const std::string text = "a\n\n" + long_line + "\nlast";
  ASSERT_EQ(write(fds[1], text.data(), text.size()), static_cast<ssize_t>(text.size()));
  LineReader reader(fds[0], "test");
  std::string line;
  ASSERT_TRUE(*reader.Next(line));
  EXPECT_EQ(line, "a");
  ASSERT_TRUE(*reader.Next(line));
  EXPECT_EQ(line, "");
  ASSERT_TRUE(*reader.Next(line));
  EXPECT_EQ(line, long_line);
  // "last" has not ended yet: reading it would mean to wait.
  EXPECT_FALSE(reader.HasNext());
  close(fds[1]);
  EXPECT_TRUE(reader.HasNext());
  ASSERT_TRUE(*reader.Next(line));
  EXPECT_EQ(line, "last");
  EXPECT_EQ(reader.line_number(), 4);
  EXPECT_FALSE(*reader.Next(line));
  close(fds[0]);
}

// A line without end is an error that names it, not an unbounded buffer.
TEST(CliLineReaderTest, RefusesAnEndlessLine) {
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  std::thread writer([&] {
    const std::string piece(60'000, 'z');
    std::size_t written = 0;
    while (written <= kBodyBytesMax + (256 << 10)) written += write(fds[1], piece.data(), piece.size());
    close(fds[1]);
  });
  LineReader reader(fds[0], "test");
  std::string line;
  const absl::StatusOr<bool> result = reader.Next(line);
  ASSERT_FALSE(result.ok());
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("line 1 of test is above 4 MiB"));
  char buffer[65536];
  while (read(fds[0], buffer, sizeof buffer) > 0) {
  }
  writer.join();
  close(fds[0]);
}

}  // namespace
}  // namespace postkeeper::cli
