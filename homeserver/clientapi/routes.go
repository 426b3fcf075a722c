package clientapi

// tables are the route lists, one beside the handlers of each noun.
var tables = [][]route{
	accountRoutes,
	accountDataRoutes,
	adminRoutes,
	deviceRoutes,
	directoryRoutes,
	eventRoutes,
	filterRoutes,
	loginRoutes,
	profileRoutes,
	pushRuleRoutes,
	pusherRoutes,
	registerRoutes,
	roomRoutes,
	serverRoutes,
	syncRoutes,
	tagRoutes,
}
