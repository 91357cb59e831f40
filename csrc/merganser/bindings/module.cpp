#include "merganser/bindings/module.h"

#include "merganser/bindings/long_call.h"

PYBIND11_MODULE(_C, m) {
  using namespace merganser::bindings;
  m.doc() =
      "The compiled part of merganser; importing it registers the operators.";
  install_python_interrupts();
  bind_errors(m);
  bind_hub(m);
  bind_io(m);
  bind_model(m);
  bind_fisher(m);
  bind_fisher_file(m);
  bind_subspace_file(m);
  bind_memory_merge(m);
  bind_merge(m);
  bind_text(m);
  bind_train(m);
}
