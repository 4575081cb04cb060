/* Continues a text, as fast as the drafter allows:
 *   cc complete.c $(pkg-config --cflags --libs gemtp) -o complete
 *   ./complete target.gguf drafter.gguf "def fibonacci(n):" 200       (no drafter: "")
 */
#include <gemtp.h>
#include <stdio.h>
#include <stdlib.h>

static char error[300];

static void check(gemtp_status status) {
  if (status == GEMTP_OK) return;
  fprintf(stderr, "complete: %s\n", error);
  exit(1);
}

static int print(const gemtp_token* token, void* user) {
  (void)user;
  return fwrite(token->text, 1, token->length, stdout) != token->length || fflush(stdout);
}

int main(int argc, char** argv) {
  if (argc < 4) return fprintf(stderr, "usage: complete TARGET DRAFTER TEXT [TOKENS]\n"), 2;
  gemtp_model_options opening;
  gemtp_model_options_init(&opening, sizeof opening);
  if (argv[2][0]) opening.drafter_path = argv[2];
  gemtp_model* model;
  check(gemtp_model_open(argv[1], &opening, &model, error, sizeof error));
  gemtp_session* text;
  check(gemtp_session_open(model, &text, error, sizeof error));
  check(gemtp_session_append_text(text, argv[3], GEMTP_STRLEN, GEMTP_ADD_BOS, error, sizeof error));
  gemtp_generate_options options;
  gemtp_generate_options_init(&options, sizeof options);
  if (argc > 4) options.max_tokens = atoi(argv[4]);
  options.on_token = print;
  check(gemtp_session_generate(text, &options, error, sizeof error));
  gemtp_session_close(text);
  gemtp_model_close(model);
  return 0;
}
