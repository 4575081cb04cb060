/* The C ABI as a C program uses it: generate with and without the drafter, compare the bytes, and
 * make every kind of mistake once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gemtp.h"

static char error[256];

#define REQUIRE(condition)                                                        \
  do {                                                                            \
    if (!(condition)) {                                                           \
      fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, error); \
      exit(1);                                                                    \
    }                                                                             \
  } while (0)

static const char kPrompt[] = "def read_lines(path):\n    ";

/* Appends the whole text of one generation to out (room for 8192 bytes), returns its length. */
static size_t complete(gemtp_engine* engine, int draft, float temperature, char* out,
                       gemtp_stats* stats) {
  gemtp_generate_options options = gemtp_generate_options_default();
  options.max_tokens = 48;
  options.temperature = temperature;
  options.seed = 7;
  options.draft = draft;
  options.ignore_eos = 1;
  gemtp_session* session = NULL;
  REQUIRE(gemtp_session_start_text(engine, kPrompt, strlen(kPrompt), &options, &session, error,
                                   sizeof error) == GEMTP_OK);
  size_t total = 0;
  while (!gemtp_session_done(session)) {
    const char* text;
    size_t length;
    REQUIRE(gemtp_session_step(session, &text, &length, error, sizeof error) == GEMTP_OK);
    REQUIRE(total + length < 8192);
    memcpy(out + total, text, length);
    total += length;
  }
  REQUIRE(strcmp(gemtp_session_finish_reason(session), "length") == 0);
  size_t tokens;
  REQUIRE(gemtp_session_tokens(session, &tokens) != NULL && tokens == 48);
  *stats = gemtp_session_stats(session);
  REQUIRE(stats->tokens == 48);
  gemtp_session_free(session);
  return total;
}

static void same_bytes_with_and_without_drafter(gemtp_engine* engine) {
  static char plain[8192], drafted[8192];
  for (int i = 0; i < 2; ++i) {
    gemtp_stats without, with;
    const size_t n = complete(engine, 0, (float)i, plain, &without);
    const size_t m = complete(engine, 4, (float)i, drafted, &with);
    REQUIRE(n > 0 && n == m && memcmp(plain, drafted, n) == 0);
    REQUIRE(without.drafted == 0 && with.drafted > 0);
    REQUIRE(with.accepted > 0 && with.accepted <= with.drafted);
    REQUIRE(with.rounds < without.rounds);
  }
}

static void text_round_trips(gemtp_engine* engine) {
  int32_t ids[64];
  char text[128];
  size_t count, length;
  REQUIRE(gemtp_tokenize(engine, kPrompt, strlen(kPrompt), 0, NULL, 0, &count, error,
                         sizeof error) == GEMTP_OK);
  REQUIRE(count > 0 && count < 64);
  REQUIRE(gemtp_tokenize(engine, kPrompt, strlen(kPrompt), 0, ids, 64, &count, error,
                         sizeof error) == GEMTP_OK);
  REQUIRE(gemtp_detokenize(engine, ids, count, text, sizeof text, &length, error, sizeof error) ==
          GEMTP_OK);
  REQUIRE(length == strlen(kPrompt) && memcmp(text, kPrompt, length) == 0);
}

static void mistakes_become_codes_and_sentences(gemtp_engine* engine, const char* target) {
  gemtp_engine* other = NULL;
  REQUIRE(gemtp_engine_open("no/such.gguf", NULL, &other, error, sizeof error) == GEMTP_ERROR_FILE);
  REQUIRE(other == NULL && strstr(error, "no/such.gguf") != NULL);
  REQUIRE(gemtp_engine_open(NULL, NULL, &other, NULL, 0) == GEMTP_ERROR_ARGUMENT);
  gemtp_engine_options options = gemtp_engine_options_default();
  options.drafter_path = target;
  REQUIRE(gemtp_engine_open(target, &options, &other, error, sizeof error) == GEMTP_ERROR_MODEL);
  options = gemtp_engine_options_default();
  options.isa = "abacus";
  REQUIRE(gemtp_engine_open(target, &options, &other, error, sizeof error) == GEMTP_ERROR_ARGUMENT);

  gemtp_session* session = NULL;
  const int32_t bad[] = {1 << 30};
  REQUIRE(gemtp_session_start(engine, bad, 1, NULL, &session, error, sizeof error) ==
          GEMTP_ERROR_ARGUMENT);
  gemtp_generate_options generate = gemtp_generate_options_default();
  generate.top_p = -1;
  const int32_t good[] = {2};
  REQUIRE(gemtp_session_start(engine, good, 1, &generate, &session, error, sizeof error) ==
          GEMTP_ERROR_ARGUMENT);
  REQUIRE(strstr(error, "top_p") != NULL);
  generate.size = 0;
  REQUIRE(gemtp_session_start(engine, good, 1, &generate, &session, error, sizeof error) ==
          GEMTP_ERROR_ARGUMENT);
  const size_t n = (size_t)gemtp_engine_context(engine);
  int32_t* many = malloc(n * sizeof *many);
  REQUIRE(many != NULL);
  for (size_t i = 0; i < n; ++i) many[i] = 2;
  REQUIRE(gemtp_session_start(engine, many, n, NULL, &session, error, sizeof error) ==
          GEMTP_ERROR_CONTEXT);
  free(many);
  REQUIRE(session == NULL);
  char tiny[4];
  REQUIRE(gemtp_session_start(engine, bad, 1, NULL, &session, tiny, sizeof tiny) != GEMTP_OK);
  REQUIRE(strlen(tiny) == 3);
  gemtp_session_free(NULL);
  gemtp_engine_close(NULL);
}

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: %s TARGET.gguf DRAFTER.gguf\n", argv[0]);
    return 2;
  }
  gemtp_engine* engine = NULL;
  gemtp_engine_options options = gemtp_engine_options_default();
  options.drafter_path = argv[2];
  REQUIRE(gemtp_engine_open(argv[1], &options, &engine, error, sizeof error) == GEMTP_OK);
  text_round_trips(engine);
  same_bytes_with_and_without_drafter(engine);
  mistakes_become_codes_and_sentences(engine, argv[1]);
  gemtp_engine_close(engine);
  puts("C ABI: ok");
  return 0;
}
