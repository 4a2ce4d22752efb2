package command

// Table returns all commands, by name.
func Table() []*Command {
	return []*Command{
		btCommand(),
		disCommand(),
		foreachCommand(),
		helpCommand(),
		logCommand(),
		modCommand(),
		psCommand(),
		quitCommand(),
		rdCommand(),
		structCommand(),
		symCommand(),
		sysCommand(),
	}
}
