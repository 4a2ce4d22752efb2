package filtertest

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"crashlab/crashkit"
	"crashlab/crashkit/command"
	"crashlab/crashkit/kernel"
)

// lines are beside what the commands' help has for examples.
var lines = []string{
	"log -m", "ps -p 1", "ps -c", "mod -t", "bt -a", "bt 0", "sym -M", "sym -l", "struct task_struct init_task",
	"struct -o page", "struct uts_namespace init_uts_ns", "dis -r schedule+20", "rd -s modules 64", "rd linux_banner 64",
}

// Answers returns what each command says, and to which error, by command line:
// the examples of all commands, and the stack and the structure of each task.
// Only the file's name and kind are left out.
func Answers(t testing.TB, p *crashkit.Program) map[string]string {
	t.Helper()
	todo := slices.Clone(lines)
	for _, c := range command.Table() {
		if c.Name != "sys" {
			todo = append(todo, c.Examples...)
		}
	}
	tasks, err := kernel.Tasks(p)
	if err != nil {
		t.Errorf("tasks: %v", err)
	}
	for _, task := range tasks {
		todo = append(todo, fmt.Sprintf("bt %x", uint64(task.Addr)), fmt.Sprintf("struct task_struct %x", uint64(task.Addr)))
	}
	env := command.NewEnv(p, "the dump")
	all := map[string]string{"sys": fmt.Sprintf("%+v", kernel.Sys(p))}
	for _, line := range todo {
		b, err := json.Marshal(command.Run(t.Context(), env, line))
		if err != nil {
			t.Fatal(err)
		}
		all[line] = string(b)
	}
	return all
}
