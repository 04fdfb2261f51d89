// Starts `omr lsp` for recipes, and again when its command changes or is asked for.

const vscode = require("vscode");
const { LanguageClient, TransportKind } = require("vscode-languageclient/node");

let client;

async function activate(context) {
  context.subscriptions.push(
    vscode.commands.registerCommand("omr.restart", restart),
    vscode.workspace.onDidChangeConfiguration((change) => {
      if (change.affectsConfiguration("omr.command")) return restart();
    }),
  );
  await start();
}

function deactivate() {
  return client?.stop();
}

async function restart() {
  await client?.stop();
  await start();
}

async function start() {
  const [command, ...args] = written();
  const server = { command, args, transport: TransportKind.stdio };
  client = new LanguageClient("omr", "omr", server, {
    documentSelector: [{ scheme: "file", language: "omr" }],
    synchronize: { fileEvents: vscode.workspace.createFileSystemWatcher("**/*.omr") },
  });
  try {
    await client.start();
  } catch (error) {
    client = undefined;
    const help = 'Install it with `pip install "omrlang[lsp]"`, or say in `omr.command` where it is.';
    vscode.window.showErrorMessage(`\`${[command, ...args].join(" ")}\` did not start. ${help} (${error.message})`);
  }
}

// The command as the settings have it, with the folder that is open in place of its variable.
function written() {
  const folder = vscode.workspace.workspaceFolders?.[0]?.uri.fsPath ?? "";
  const words = vscode.workspace.getConfiguration("omr").get("command", ["omr", "lsp"]);
  return words.map((word) => word.replaceAll("${workspaceFolder}", folder));
}

module.exports = { activate, deactivate };
